/* What must still work after an attack. */
#include <stdio.h>
int main(void) { return puts("hello") < 0; }
