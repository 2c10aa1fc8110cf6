"""Disaggregation: KV of prompts leaves one node and goes on at another."""
