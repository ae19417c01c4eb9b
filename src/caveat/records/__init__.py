"""What an audit or a study found, as validated JSON; no torch, so that a report can be made anywhere."""
