"""Signs a JSON Web Token with nothing of the server's: hmac of the standard library, or the openssl command.

sign.py ALGORITHM KEY HEADER CLAIMS -- KEY is the secret itself for HS256, a file for EdDSA and ES256.
"""
import base64
import hashlib
import hmac
import subprocess
import sys
import tempfile


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def fixed(der):
    """SEQUENCE { INTEGER r, INTEGER s } as the 64 bytes of RFC 7518 section 3.4; all lengths are below 128."""
    r_len = der[3]
    r, s = der[4 : 4 + r_len], der[6 + r_len :]
    return b"".join(part.lstrip(b"\0").rjust(32, b"\0") for part in (r, s))


algorithm, key, header, claims = sys.argv[1:]
signed = b64(header.encode()) + b"." + b64(claims.encode())
if algorithm == "none":
    signature = b""
elif algorithm == "HS256":
    signature = hmac.new(key.encode(), signed, hashlib.sha256).digest()
elif algorithm == "EdDSA":
    with tempfile.NamedTemporaryFile() as file:
        file.write(signed)
        file.flush()
        sign = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file.name]
        signature = subprocess.run(sign, check=True, stdout=subprocess.PIPE).stdout
else:
    sign = ["openssl", "dgst", "-sha256", "-sign", key]
    signature = fixed(subprocess.run(sign, check=True, input=signed, stdout=subprocess.PIPE).stdout)
sys.stdout.write((signed + b"." + b64(signature)).decode())
