"""From an event to bytes on disk: the journal, redaction, the digest chain, the folder."""
