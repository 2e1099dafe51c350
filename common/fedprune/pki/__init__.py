"""Who someone is, as keys and certificates say it: nothing here opens a connection or knows a role's rights.

Keys are P-256, because gRPC's TLS takes no Ed25519. A party is its key: its identity is the SHA-256 of the public key,
which stays when a certificate is renewed. A certificate adds a name and a role, signed by the federation's issuing
authority, which an offline root has signed.
"""
