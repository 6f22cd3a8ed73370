"""What people run and talk to: the daemon's wiring, its HTTP side, its configuration and the command line."""
