"""Problems by name: a network, its data and its loss, with settings per optimizer that are known to work."""
