"""The federation's own certificate authority: who was invited, enrolled, renewed and revoked, and the keys that sign.

It works on one folder, beside the coordinator or on an operator's machine. `fedprune certs` and `fedprune invite` are
its counter for people; the coordinator's enrolment service is the one for machines.
"""
