"""The whole appliance, once through, on text that every machine has."""
