"""The demo: the main job run for real, under traffic, and judged from outside."""
