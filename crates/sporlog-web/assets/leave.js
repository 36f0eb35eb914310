// Goes on to the provider that the person signed in with, to sign out there as well.
"use strict";
document.getElementById("leave").submit();
