"""Who somebody is: the client of the authentication service, its cache and breaker, and login limits."""
