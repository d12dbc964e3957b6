"""`python -m cnnbench` is the command `cnnbench`."""

from cnnbench.train import main

if __name__ == "__main__":
    main()
