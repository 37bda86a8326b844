"""Django's own passwords, with as many iterations as the other servers of the comparison."""
import os

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class Hasher(PBKDF2PasswordHasher):
    iterations = int(os.environ.get("PBKDF2_ITERATIONS", PBKDF2PasswordHasher.iterations))
