"""The pipeline: reads the spool, batches per destination and delivers."""
