"""Formats other than plain JSON, for ``Stream(decode=…)``: each is a function from a record to the JSON
document that the contract judges (`streamflow.formats.documents`)."""
