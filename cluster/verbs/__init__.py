"""What each verb of the command line does; a verb is imported when it is asked for."""
