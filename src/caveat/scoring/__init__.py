"""Which scores there are, what each needs, and how they are fitted and applied; audits and guards stand on it."""
