"""Boot packages in a virtual machine and check what they do; see suite.smoke."""
