"""The shared harness: problems, the cases of every carded loss, and the laws that their forms call for."""
