"""Reading: from names, folders and pipes to documents. `documents.Inputs` is the whole of it."""
