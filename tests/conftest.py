"""What all tests share: property tests that fail for what the code does, never for how busy the machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile("assay", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")
