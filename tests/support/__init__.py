"""What tests share and that is no test: fakes, loopback servers, small models, helpers."""
