"""The same training step by several implementations, measured side by side: one worker process per number of
threads."""
