#include <stdio.h>
#include "rehearsal.h"
int main(void) { return printf("%d\n", rehearse(1)) < 0; }
