"""What the tests of a scenario share: the node as its operator sees it, clients as they come over the network."""
