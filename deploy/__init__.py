"""The whole product on one machine: real servers from wheels, and every process under one manager."""
