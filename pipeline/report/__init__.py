"""The history of nights as a site of plain files: no server, no scripts, nothing from elsewhere."""
