"""A package, because some distribution installs one of that name, which a folder without this file would lose to."""
