"""Hosts rented from Amazon EC2. The only package that imports boto3, when it is first used."""
