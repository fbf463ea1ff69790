"""Losses as functions of logits and images, for the recipes to put together."""
