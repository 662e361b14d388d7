"""Code that tests share: fakes, loopback servers, small models, helpers."""
