// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Dma-buf registration for rdma_rxe, for tests only: becomes the end of rxe_mr.c (host/dmabuf.sh says how). The buffer is mapped
 * once by its exporter's vmap, and the region's page table takes the pages of that mapping; so it works with exporters
 * whose memory is ordinary pages (udmabuf), and shows nothing about device memory.
 */
#include <linux/dma-buf.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>

MODULE_IMPORT_NS(DMA_BUF);

static int rxe_mr_take_dmabuf(struct rxe_mr *mr, struct dma_buf *buffer, u64 offset, u64 length, u64 iova)
{
	u64 first = offset & PAGE_MASK;
	u64 pages, page;
	int err;

	/* rxe takes the offset within a page from the address, so the two must agree below a page. */
	if (!length || (offset ^ iova) & ~PAGE_MASK)
		return -EINVAL;
	if (offset > buffer->size || length > buffer->size - offset)
		return -EINVAL;
	pages = (PAGE_ALIGN(offset + length) - first) >> PAGE_SHIFT;

	err = dma_buf_vmap_unlocked(buffer, &mr->dmabuf_map);
	if (err)
		return err;
	err = mr->dmabuf_map.is_iomem ? -EOPNOTSUPP : alloc_mr_page_info(mr, pages);
	if (err) {
		dma_buf_vunmap_unlocked(buffer, &mr->dmabuf_map);
		return err;
	}
	for (page = 0; page < pages; page++) {
		void *at = mr->dmabuf_map.vaddr + first + page * PAGE_SIZE;

		mr->page_info[page].page = is_vmalloc_addr(at) ? vmalloc_to_page(at) : virt_to_page(at);
		mr->page_info[page].offset = 0;
	}
	mr->nbuf = pages;
	mr->dmabuf = buffer;
	mr->ibmr.iova = iova;
	mr->ibmr.length = length;
	mr->ibmr.type = IB_MR_TYPE_USER;
	mr->state = RXE_MR_STATE_VALID;
	return 0;
}

/* Called by rxe_mr_cleanup(): nothing can reach the region any more. */
void rxe_mr_release_dmabuf(struct rxe_mr *mr)
{
	if (!mr->dmabuf)
		return;
	dma_buf_vunmap_unlocked(mr->dmabuf, &mr->dmabuf_map);
	dma_buf_put(mr->dmabuf);
	mr->dmabuf = NULL;
}

struct ib_mr *rxe_reg_user_mr_dmabuf(struct ib_pd *pd, u64 offset, u64 length, u64 iova, int fd, int access,
				     struct uverbs_attr_bundle *attributes)
{
	struct rxe_dev *rxe = to_rdev(pd->device);
	struct dma_buf *buffer;
	struct rxe_mr *mr;
	int err;

	if (access & ~RXE_ACCESS_SUPPORTED_MR)
		return ERR_PTR(-EOPNOTSUPP);
	buffer = dma_buf_get(fd);
	if (IS_ERR(buffer))
		return ERR_CAST(buffer);
	mr = kzalloc(sizeof(*mr), GFP_KERNEL);
	if (!mr) {
		err = -ENOMEM;
		goto put_buffer;
	}
	err = rxe_add_to_pool(&rxe->mr_pool, mr);
	if (err)
		goto free_region;
	rxe_get(to_rpd(pd));
	mr->ibmr.pd = pd;
	mr->ibmr.device = pd->device;
	rxe_mr_init(access, mr);
	err = rxe_mr_take_dmabuf(mr, buffer, offset, length, iova);
	if (err) {
		rxe_cleanup(mr);
		goto free_region;
	}
	rxe_finalize(mr);
	return &mr->ibmr;

free_region:
	kfree(mr);
put_buffer:
	dma_buf_put(buffer);
	return ERR_PTR(err);
}
