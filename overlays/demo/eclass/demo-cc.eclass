# Distributed under the terms of the MIT license

# @ECLASS: demo-cc.eclass
# @SUPPORTED_EAPIS: 8
# @BLURB: Name the compiler and its tools for packages without a configure script.

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI} is not supported" ;;
esac

# @FUNCTION: demo-cc_export
# @DESCRIPTION:
# Export CC, CXX, AR and RANLIB. A value of the user's stands (distcc, a wrapper);
# otherwise it is the tool of CHOST, as configure would choose.
demo-cc_export() {
	export CC=${CC:-${CHOST}-gcc}
	export CXX=${CXX:-${CHOST}-g++}
	export AR=${AR:-${CHOST}-ar}
	export RANLIB=${RANLIB:-${CHOST}-ranlib}
}
