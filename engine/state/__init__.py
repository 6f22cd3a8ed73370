"""What flows keep and share."""
