"""Django's password hasher with the iteration count of the other servers."""

import os

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class Hasher(PBKDF2PasswordHasher):
    iterations = int(os.environ.get("PBKDF2_ITERATIONS", PBKDF2PasswordHasher.iterations))
