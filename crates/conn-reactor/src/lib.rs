//! Edge-triggered reactor for very many quiet sockets
