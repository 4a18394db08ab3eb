"""Order and durability: the journal and the pipeline, blind to what a deployment is."""
