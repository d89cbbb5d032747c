"""What everything else stands on: errors, files, registries, options. Knows no domain."""
