"""`limner data check` and `limner data shards`."""
