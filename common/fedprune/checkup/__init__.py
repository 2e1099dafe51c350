"""What `doctor` says on either side: what a finding is, what a machine alone can tell, and the way to another machine.

What only one side can tell lies in that side.
"""
