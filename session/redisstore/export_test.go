package redisstore

// MaxFlights is for tests.
const MaxFlights = maxFlights
