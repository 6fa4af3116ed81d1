"""``make loop``: what the demo made live meets traffic that changes. See `pipelines.loop.__main__`."""
