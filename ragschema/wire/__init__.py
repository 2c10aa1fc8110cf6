"""The gRPC wire: generated stubs, one conversion module, client and server ends."""
