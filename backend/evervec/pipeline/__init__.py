"""What the product does with a row, a package a stage; every stage is given the open resources of its process."""
