"""What several studies share: figures as the papers take them, charts, networks and folders."""
