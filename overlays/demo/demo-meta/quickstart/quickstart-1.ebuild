# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="A few small packages that show every kind of dependency"
HOMEPAGE="https://example.org/portage-cluster"

LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

RDEPEND="
	app-arch/bzip2
	app-arch/lz4
	app-arch/lzlib
	app-arch/plzip
	media-gfx/pngcrush
	media-libs/libpng
	sys-libs/zlib
"
