"""Training inputs that reconstruction is tried on."""
