#include "rehearsal.h"
int rehearse(int x) { return x + 1; }
