/* @NAME@ */
int rehearse(int x);
