"""What tests, and users who try things out, need in place of services: real servers with programmed replies."""
