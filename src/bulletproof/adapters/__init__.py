"""The real implementations of the ports; each stands alone and only wiring knows them."""
