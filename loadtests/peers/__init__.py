"""The other servers of the comparison, each tuned as its documentation says, in an environment of its own."""
