"""The tables of the store, one module per subject, as mixins of `SqlStore`."""
